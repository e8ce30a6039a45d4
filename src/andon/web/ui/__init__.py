"""Pages a person reads: view structs, templates and the few static files they need."""
