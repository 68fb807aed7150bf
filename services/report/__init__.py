"""What a person is told of a run: one page and its pictures, made from the files in the run's folder."""
