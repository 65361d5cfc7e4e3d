"""What rounds cost, told and kept: tables, files and pictures of a history."""
