"""Hosts that ship with the device: a simulated machine and a vhost-user back end."""
