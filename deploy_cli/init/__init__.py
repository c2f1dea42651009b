"""First contact: from real hosts, looked at over SSH, to an inventory that `plan` accepts."""
