# What is placed in the network is told this.

output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "private_subnets" {
  description = "Private subnets by zone."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }
}

output "public_subnets" {
  description = "Public subnets by zone; empty where there are none."
  value       = { for zone, subnet in aws_subnet.public : zone => subnet.id }
}

output "dns_zone_id" {
  description = "The private DNS zone."
  value       = aws_route53_zone.private.zone_id
}

output "s3_prefix_list_id" {
  description = "S3's addresses in this region, for security groups."
  value       = aws_vpc_endpoint.s3.prefix_list_id
}
