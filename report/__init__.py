"""What a run leaves to read: tables, plots and report.md, made from the records of its stages. Nothing is trained here."""
