"""Scenario offers: search, signed quotes, disclosure evidence, acceptance."""
