//! What a simulated operator may order of a cluster that moves between two deployments. Pure.
//!
//! ```text
//! published document + wish ─► stand (active, target) ─► file (settings.rs)
//! ```
//! Not here: when orders are written, and how they get on the disks (`coordinators/orders.rs`).

use tako_types::config::{Phase, Published};

use crate::{chance::Chance, layout, scenario::Scenario};

/// What a file says about deployments: that is the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// `active_deployment`.
    pub active: String,
    /// `target_deployment`.
    pub target: Option<String>,
}

/// What an operator has in mind; what it comes to depends on what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Begin a move, or finish it.
    Further,
    /// Give a move up.
    Back,
    /// Take back what was ordered last: both sets stay written.
    Hold,
    /// Begin the other way round, whether that is allowed now or not. In the middle of a move it lets
    /// reads move and no more.
    Rash,
}

impl Wish {
    /// One of them.
    pub fn draw(chance: &mut Chance) -> Self {
        use Wish::*;
        *chance.pick(&[Further, Further, Further, Further, Further, Back, Back, Hold, Rash])
    }

    /// For counts.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Further => "order: further",
            Self::Back => "order: back",
            Self::Hold => "order: hold",
            Self::Rash => "order: rash",
        }
    }

    /// The order that it comes to while `published` is the newest document.
    #[must_use]
    pub fn stand(self, scenario: &Scenario, published: &Published) -> Stand {
        let active = &published.config.active;
        let Some(migration) = &published.migration else {
            let other = other(scenario, active);
            return match self {
                Self::Back => Stand::alone(active),
                Self::Further | Self::Hold | Self::Rash => Stand::both(active, &other),
            };
        };
        let other = &migration.other;
        match (self, migration.phase) {
            (Self::Rash, Phase::Leave) => Stand::both(active, other),
            (_, Phase::Leave) | (Self::Back, _) => Stand::alone(active),
            (Self::Further, _) => Stand::alone(other),
            (Self::Hold, _) => Stand::both(active, other),
            (Self::Rash, _) => Stand::both(other, active),
        }
    }
}

impl Stand {
    /// With which a scenario begins.
    #[must_use]
    pub fn first(scenario: &Scenario) -> Self {
        Self::alone(layout::deployments(scenario)[0].name)
    }

    /// One deployment, no move.
    #[must_use]
    pub fn alone(active: &str) -> Self {
        Self { active: active.to_owned(), target: None }
    }

    /// Both deployments, in this order.
    #[must_use]
    pub fn both(active: &str, target: &str) -> Self {
        Self { active: active.to_owned(), target: Some(target.to_owned()) }
    }

    /// Whether a coordinator may take this while `published` is in force.
    #[must_use]
    pub fn may_follow(&self, published: &Published) -> bool {
        let active = &published.config.active;
        match &published.migration {
            None => self.active == *active,
            Some(migration) if migration.phase == Phase::Leave => *self == Self::alone(active),
            Some(migration) => {
                let other = &migration.other;
                let alone = [Self::alone(active), Self::alone(other)];
                let both = [Self::both(active, other), Self::both(other, active)];
                alone.contains(self) || both.contains(self)
            }
        }
    }

    /// What brings this order to an end while `published` is in force; `None` when it does so itself.
    #[must_use]
    pub fn to_end(&self, published: &Published, finish: bool) -> Option<Self> {
        if !self.may_follow(published) {
            return Some(Self::alone(&published.config.active));
        }
        self.target.as_ref()?;
        // Without one the order has not been taken yet.
        let migration = published.migration.as_ref()?;
        Some(Self::alone(if finish { &migration.other } else { &published.config.active }))
    }
}

/// The other one of two.
fn other(scenario: &Scenario, active: &str) -> String {
    let all = layout::deployments(scenario);
    let other = all.iter().find(|deployed| deployed.name != active);
    other.map_or(active, |deployed| deployed.name).to_owned()
}
