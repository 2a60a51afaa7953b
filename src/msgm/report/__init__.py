"""What a person looks at: tables, figures, pages, folders of pictures."""
