"""What every domain leans on: settings, time, ids, money, database, outbox, audit; imports nobody of ours."""
