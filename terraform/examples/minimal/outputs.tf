# What the documented runs ask for (docs/terraform.md).

output "endpoint" {
  description = "Where clients inside the VPC find the proxies."
  value       = module.tako.endpoint
}

output "load_balancer" {
  description = "The load balancer, as AWS calls it."
  value       = module.tako.load_balancer
}

output "coordinators" {
  description = "Coordinators, as `tako ctl -c` takes them."
  value       = module.tako.coordinators
}

output "nodes" {
  description = "Nodes by id."
  value       = module.tako.nodes
}

output "configuration" {
  description = "The configuration that these variables describe."
  value       = module.tako.configuration
}

output "store_url" {
  description = "The object store."
  value       = module.tako.store_url
}

output "secret_arns" {
  description = "Where the operator puts secrets."
  value       = module.tako.secret_arns
}

output "certificate_names" {
  description = "Names that the cluster's certificate must have."
  value       = module.tako.certificate_names
}

output "estimate" {
  description = "Costs, shares, how long the store may be away."
  value       = module.tako.estimate
}

output "policies" {
  description = "The policies by role."
  value       = module.tako.policies
}

output "user_data" {
  description = "The user data of all instances, as text."
  value       = module.tako.user_data
}
