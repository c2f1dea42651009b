"""The gateway as data: what HAProxy says about itself."""
