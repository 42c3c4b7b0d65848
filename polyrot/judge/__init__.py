"""Registration, bars, verdicts and the ledger."""
