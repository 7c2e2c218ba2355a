"""The identity API of Keystone, v3 and v2.0, for clients that log in through bootvol."""
