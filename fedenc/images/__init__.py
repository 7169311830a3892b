"""Reading and writing image files, sheets of labelled images, and how alike two images are."""
