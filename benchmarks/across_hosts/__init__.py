"""What several hosts on a Redis cost: the parts of `hosts.py`."""
