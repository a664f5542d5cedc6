"""Images -> rows: each image is read, hashed, decoded and embedded once."""
