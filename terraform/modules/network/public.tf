# The part of the network that reaches the internet: only where asked for.
#
# Owns: public subnets (for a load balancer that clients reach from outside, and for NAT), their
# gateway, and NAT gateways, one a zone so that no zone depends on another.

locals {
  public = var.public_subnets || var.nat
}

resource "aws_internet_gateway" "this" {
  count = local.public ? 1 : 0

  vpc_id = aws_vpc.this.id
  tags   = { Name = var.cluster }
}

resource "aws_subnet" "public" {
  for_each = local.public ? local.zones : {}

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 4, 8 + each.value)
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.cluster}-public-${each.key}" }
}

resource "aws_route_table" "public" {
  count = local.public ? 1 : 0

  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.cluster}-public" }
}

resource "aws_route" "public" {
  count = local.public ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each = local.public ? local.zones : {}

  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  for_each = var.nat ? local.zones : {}

  domain = "vpc"
  tags   = { Name = "${var.cluster}-nat-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each = var.nat ? local.zones : {}

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = { Name = "${var.cluster}-${each.key}" }
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route" "nat" {
  for_each = var.nat ? local.zones : {}

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.key].id
}
