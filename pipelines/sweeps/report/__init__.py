"""The report page of a sweep: rows, columns, plots."""
