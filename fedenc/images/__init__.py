"""Images in and out of files, beside each other on a sheet, and how alike two of them are."""
