"""Instalment plans: arithmetic, schedules, captures, refunds, the money journal."""
