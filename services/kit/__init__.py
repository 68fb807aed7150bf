"""Kits: what an operator hands to a site, and what the site checks before it joins."""
