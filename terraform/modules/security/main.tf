# Who may talk to whom.
#
# Owns: a security group per role, and every rule between them as one table. What the table does not
# name is closed: RPC is for members only; orders (the coordinators' port) for members and the
# operator; HTTP and memcached of proxies for the load balancer. Every port of it also speaks TLS and
# asks for a certificate or a token: this is the outer of two walls.

locals {
  groups = merge(
    {
      node          = "Nodes"
      coordinator   = "Coordinators"
      proxy         = "Proxies"
      load_balancer = "The load balancer"
    },
    var.collector ? { collector = "The OpenTelemetry collector" } : {},
  )

  # from → to at these ports. Both ends get a rule: one lets out, the other lets in. Coordinators reach
  # the HTTP ports of nodes for operators who work there: `tako ctl status` asks each node.
  flows = {
    node        = { node = ["rpc"], coordinator = ["coordinator"], collector = ["otlp"] }
    coordinator = { node = ["rpc", "http"], coordinator = ["coordinator"], collector = ["otlp"] }
    proxy       = { node = ["rpc"], coordinator = ["coordinator"], collector = ["otlp"] }
    collector   = { node = ["http"], proxy = ["http"] }

    load_balancer = { proxy = var.memcached ? ["http", "memcached"] : ["http"] }
  }
  ports = merge(var.ports, { otlp = 4318 })

  pairs = merge([
    for from, targets in local.flows : merge([
      for to, names in targets : {
        for name in names : "${from}-${to}-${name}" => { from = from, to = to, port = local.ports[name] }
      } if contains(keys(local.groups), to)
    ]...) if contains(keys(local.groups), from)
  ]...)

  # `tako ctl` and `tako migrate` ask coordinators, and nodes how they are.
  operator = {
    for pair in setproduct(["coordinator:coordinator", "node:http", "node:rpc", "proxy:http"], var.operator_cidrs) :
    join("-", pair) => {
      to   = split(":", pair[0])[0]
      port = local.ports[split(":", pair[0])[1]]
      cidr = pair[1]
    }
  }
  clients = {
    for pair in setproduct(var.memcached ? ["http", "memcached"] : ["http"], var.client_cidrs) :
    join("-", pair) => { port = var.listener_ports[pair[0]], cidr = pair[1] }
  }
  instances = [for role in keys(local.groups) : role if role != "load_balancer"]
}

resource "aws_security_group" "this" {
  for_each = local.groups

  name        = "${var.cluster}-${replace(each.key, "_", "-")}"
  description = "${each.value} of the Tako cluster ${var.cluster}"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.cluster}-${replace(each.key, "_", "-")}" }
}

resource "aws_vpc_security_group_ingress_rule" "between" {
  for_each = local.pairs

  security_group_id            = aws_security_group.this[each.value.to].id
  referenced_security_group_id = aws_security_group.this[each.value.from].id
  description                  = each.key
  from_port                    = each.value.port
  to_port                      = each.value.port
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "between" {
  for_each = local.pairs

  security_group_id            = aws_security_group.this[each.value.from].id
  referenced_security_group_id = aws_security_group.this[each.value.to].id
  description                  = each.key
  from_port                    = each.value.port
  to_port                      = each.value.port
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "operator" {
  for_each = local.operator

  security_group_id = aws_security_group.this[each.value.to].id
  description       = "Operator"
  cidr_ipv4         = each.value.cidr
  from_port         = each.value.port
  to_port           = each.value.port
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = local.clients

  security_group_id = aws_security_group.this["load_balancer"].id
  description       = "Clients"
  cidr_ipv4         = each.value.cidr
  from_port         = each.value.port
  to_port           = each.value.port
  ip_protocol       = "tcp"
}

# The store, and AWS's endpoints inside the VPC.
resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each = toset(local.instances)

  security_group_id = aws_security_group.this[each.key].id
  description       = "S3"
  prefix_list_id    = var.s3_prefix_list_id
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  for_each = toset(local.instances)

  security_group_id = aws_security_group.this[each.key].id
  description       = "Endpoints of AWS services"
  cidr_ipv4         = var.vpc_cidr
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

# Where the collector sends what it has got.
resource "aws_vpc_security_group_egress_rule" "collector" {
  for_each = toset(var.collector_egress_cidrs)

  security_group_id = aws_security_group.this["collector"].id
  description       = "Where telemetry goes"
  cidr_ipv4         = each.key
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}
