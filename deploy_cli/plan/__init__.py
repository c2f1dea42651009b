"""The plan: a pure function from an inventory to what runs where, or to all of the inventory's problems at once."""

from deploy_cli.errors import Problem
from deploy_cli.plan.make import make_plan, unnamed
from deploy_cli.plan.shapes import Placed, Plan, SiteInput, Unresolved

__all__ = ["Placed", "Plan", "Problem", "SiteInput", "Unresolved", "make_plan", "unnamed"]
