"""Mirrors container images into ECR for Kubernetes clusters in AWS China."""
