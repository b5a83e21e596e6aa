"""The Spark ML surface: estimators, models and their params. Never touches an RDD."""
