"""Who did what and why: access, the ledger's proofs, lineage, signing and documents."""
