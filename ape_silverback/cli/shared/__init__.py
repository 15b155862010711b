"""What the commands share: options, output, progress, selection, documents, completion, groups."""
