"""What `elasticmm doctor` looks at, one file per thing."""
