"""Scale: uploads beside raw Ray, and whole simulations by phase, for growing federations."""
