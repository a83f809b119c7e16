# Instances are placed in these.

output "groups" {
  description = "Security groups by role: node, coordinator, proxy, load_balancer, and with one collector."
  value       = { for role, group in aws_security_group.this : role => group.id }
}
