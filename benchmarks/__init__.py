"""sigconv beside other engines, on one machine, taking turns. Results lie in results/, with the machine described."""
