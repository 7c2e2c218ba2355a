"""What bootvol serves by itself where there is no OpenStack around it: identity."""
