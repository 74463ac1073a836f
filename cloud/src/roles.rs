//! What an instance does: everything, unless it is told to leave something to others.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::health::{Health, Part};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// From the broker into `refs`.
    Intake,
    /// From `refs` to committed batches, and receipts.
    Worker,
    /// From committed rows to objects; takes away what is archived.
    Archiver,
    /// API and page. Uploads, time, health and metrics are served by every instance.
    Api,
}

impl Role {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Intake, "intake"), (Self::Worker, "worker"), (Self::Archiver, "archiver"), (Self::Api, "api")];
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Default for Roles {
    fn default() -> Self {
        Self(Role::ALL.into_iter().map(|(role, _)| role).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no role; expected some of intake, worker, archiver, api, divided by commas")]
pub struct RoleError {
    text: String,
}

impl FromStr for Roles {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let role = |name: &str| {
            let found = Role::ALL.into_iter().find(|(_, known)| *known == name.trim());
            found.map(|(role, _)| role).ok_or_else(|| RoleError { text: name.to_owned() })
        };
        text.split(',').map(role).collect::<Result<_, _>>().map(Self)
    }
}

impl Roles {
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    pub fn are_all(&self) -> bool {
        *self == Self::default()
    }

    /// Nobody waits for parts that are left to others.
    pub(crate) fn leave_out(&self, health: &Health) {
        let parts = [
            (Role::Worker, vec![Part::Worker, Part::Receipts]),
            (Role::Intake, vec![Part::Intake]),
            (Role::Archiver, vec![Part::Archive]),
        ];
        let left = parts.into_iter().filter(|(role, _)| !self.has(*role)).flat_map(|(_, parts)| parts);
        left.for_each(|part| {
            health.set(part, true);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_and_others_wait_for_nobody() {
        assert!("api,worker,archiver,intake".parse::<Roles>().unwrap().are_all());
        let roles: Roles = "archiver, api".parse().unwrap();
        assert!(!roles.are_all() && !roles.has(Role::Worker));
        let health = Health::default();
        roles.leave_out(&health);
        assert_eq!(health.missing(), ["store", "log", "registry", "landing", "archive"]);
        assert_eq!("worker,cook".parse::<Roles>().unwrap_err().text, "cook");
    }
}
