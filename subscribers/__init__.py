"""People and permission: who may be mailed, and how they leave."""
