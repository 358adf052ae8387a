"""The lifecycle policy that earlier releases gave each repository where ExpireDays was set."""

RELEASED = (
    '{"rules": [{"rulePriority": 1, "description": "Copies made by digest stay: pods may name them for good", '
    '"selection": {"tagStatus": "tagged", "tagPatternList": ["digest-sha256-*"], "countType": "sinceImagePushed", '
    '"countUnit": "days", "countNumber": 36500}, "action": {"type": "expire"}}, {"rulePriority": 2, "description": '
    '"Other copies: deleted 90 days after their latest push", "selection": {"tagStatus": "any", "countType": '
    '"sinceImagePushed", "countUnit": "days", "countNumber": 90}, "action": {"type": "expire"}}]}'
)
"""Word for word what the latest of them wrote for 90 days."""
