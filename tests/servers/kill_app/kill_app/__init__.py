"""The demo's server and a device, with points at which a test may kill them."""
