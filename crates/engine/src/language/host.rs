//! What hosts tell one another about themselves.

use crate::language::command::{put_text, text};
use crate::registry::{HostInfo, MAX_HOST_NAME};
use crate::system::codec::{Malformed, Reader, put_u64};

impl HostInfo {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.number);
        put_u64(out, self.started_at);
        put_u64(out, self.connections);
        put_u64(out, self.age);
        put_text(out, &self.name);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (number, started_at, connections, age) = (reader.u8()?, reader.u64()?, reader.u64()?, reader.u64()?);
        let name = text(reader)?;
        if name.len() > MAX_HOST_NAME {
            return Err(Malformed);
        }
        Ok(Self { number, name: name.into(), started_at, connections, age })
    }
}
