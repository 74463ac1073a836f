//! The security setup of one meter, for the client that manages it: what it says, and the transfer of keys.

use protocols::cosem::InterfaceClass as _;
use protocols::cosem::association_ln::MethodAccess;
use protocols::cosem::security_setup::{KEY_TRANSFER, KeyData, SecurityPolicy, SecuritySetup};
use protocols::dlms::apdu::{ActionResult, CosemAttribute, CosemMethod, DataAccessResult};
use protocols::dlms::data::Data;
use protocols::dlms::security::{Keys, SystemTitle, unwrap_key};
use protocols::dlms::server::ClientRole;

use super::MeterSecurity;

/// What a client may invoke.
pub(crate) fn methods(role: ClientRole) -> Vec<MethodAccess> {
    vec![MethodAccess { method: KEY_TRANSFER, mode: u8::from(role == ClientRole::Manager) }]
}

impl MeterSecurity {
    /// One attribute of the security setup.
    pub fn read(
        &self,
        role: ClientRole,
        attribute: CosemAttribute,
        selection: Option<&[u8]>,
    ) -> Result<Vec<u8>, DataAccessResult> {
        if attribute.class_id != SecuritySetup::CLASS_ID {
            return Err(DataAccessResult::ObjectClassInconsistent);
        }
        if role != ClientRole::Manager {
            return Err(DataAccessResult::ReadWriteDenied);
        }
        if selection.is_some() {
            return Err(DataAccessResult::ScopeOfAccessViolated);
        }
        let value = self.setup().attribute(attribute.attribute).ok_or(DataAccessResult::ReadWriteDenied)?;
        Ok(value.to_vec())
    }

    fn setup(&self) -> SecuritySetup {
        let ledger = self.ledger();
        let client = ledger.received.iter().map(|(_, SystemTitle(title), _)| title.to_vec()).last();
        SecuritySetup {
            security_policy: SecurityPolicy::both(self.minimum, false),
            security_suite: self.config.suite,
            client_system_title: client.unwrap_or_default(),
            server_system_title: self.config.title.0.to_vec(),
            ..SecuritySetup::new(SecuritySetup::LOGICAL_NAME)
        }
    }

    /// key_transfer, the only method. The keys are taken all or none, and are in force from the next association on.
    pub fn invoke(
        &self,
        role: ClientRole,
        method: CosemMethod,
        parameters: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, ActionResult> {
        let is_transfer = (method.class_id, method.method) == (SecuritySetup::CLASS_ID, KEY_TRANSFER);
        if !is_transfer || role != ClientRole::Manager {
            return Err(ActionResult::READ_WRITE_DENIED);
        }
        let data = parameters.and_then(|octets| Data::from_bytes(octets).ok());
        let transferred = data.and_then(|data| KeyData::decode(&data).ok()).ok_or(ActionResult::TYPE_UNMATCHED)?;
        let mut ledger = self.ledger();
        let mut keys = ledger.keys.clone();
        for KeyData { key, octets } in transferred {
            let new = unwrap_key(&ledger.keys.key_encrypting, &octets).map_err(|_| ActionResult::OTHER_REASON)?;
            if new.bits() != self.config.suite.key_bits() {
                return Err(ActionResult::TYPE_UNMATCHED);
            }
            keys = keys.with(key, new);
        }
        (ledger.keys, ledger.is_renewed) = (keys, true);
        Ok(None)
    }

    /// The keys of the next association, where they are others than before.
    pub fn take_renewed(&self) -> Option<Keys> {
        let mut ledger = self.ledger();
        std::mem::take(&mut ledger.is_renewed).then(|| ledger.keys.of_associations())
    }
}
