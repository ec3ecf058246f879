"""One reader per format: whatever holds the rows, as a source of batches."""
