"""Looking into a network: what each node costs, how far it sees, and a page that draws it."""
