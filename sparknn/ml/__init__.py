"""Estimators and models for Spark ML. Nothing here uses an RDD."""
