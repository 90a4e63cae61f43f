//! Which channels are wanted, and what Redis has been asked for. No I/O here.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::resp;

/// Channels in one command.
const PER_COMMAND: usize = 512;

#[derive(Debug, Default)]
struct Channel {
    is_wanted: bool,
    /// Whether Redis will send its messages once it has carried out all commands.
    is_on: bool,
    /// Whether it is in the list of those to look at.
    is_listed: bool,
    /// Confirmations of subscriptions that are yet to come.
    unconfirmed: u32,
    /// Whether it was wanted when the connection was made, and is not confirmed yet.
    is_renewed: bool,
}

/// What a confirmation means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    Nothing,
    Subscribed,
    Unexpected,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Interest {
    channels: FxHashMap<Arc<[u8]>, Channel>,
    /// Those for which something may have to be asked.
    listed: Vec<Arc<[u8]>>,
    unconfirmed: usize,
    renewed: usize,
}

impl Interest {
    /// Wants a channel, or does not want it any longer.
    pub(super) fn change(&mut self, name: &[u8], is_wanted: bool) {
        if !self.channels.contains_key(name) {
            if !is_wanted {
                return;
            }
            self.channels.insert(name.into(), Channel::default());
        }
        let Some((name, _)) = self.channels.get_key_value(name) else { return };
        let name = Arc::clone(name);
        let Some(channel) = self.channels.get_mut(&name) else { return };
        channel.is_wanted = is_wanted;
        if !is_wanted && std::mem::take(&mut channel.is_renewed) {
            self.renewed -= 1;
        }
        if !channel.is_listed {
            channel.is_listed = true;
            self.listed.push(name);
        }
    }

    /// Begins anew with a new connection.
    pub(super) fn begin(&mut self) {
        self.listed.clear();
        self.unconfirmed = 0;
        self.channels.retain(|_, channel| channel.is_wanted);
        self.renewed = self.channels.len();
        for (name, channel) in &mut self.channels {
            *channel = Channel { is_wanted: true, is_on: false, is_listed: true, unconfirmed: 0, is_renewed: true };
            self.listed.push(Arc::clone(name));
        }
    }

    /// Appends commands to `output` until it has that size, or nothing is left to ask for.
    pub(super) fn ask(&mut self, output: &mut Vec<u8>, max: usize) {
        while output.len() < max && !self.listed.is_empty() {
            let from = self.listed.len().saturating_sub(PER_COMMAND);
            let (mut on, mut off, mut over) = (Vec::new(), Vec::new(), Vec::new());
            for name in self.listed.drain(from..) {
                let Some(channel) = self.channels.get_mut(&name) else { continue };
                channel.is_listed = false;
                if channel.is_wanted == channel.is_on {
                    over.push(name);
                    continue;
                }
                channel.is_on = channel.is_wanted;
                if channel.is_wanted {
                    channel.unconfirmed += 1;
                    self.unconfirmed += 1;
                    on.push(name);
                } else {
                    off.push(name);
                }
            }
            for (command, names) in [(&b"SUBSCRIBE"[..], &on), (b"UNSUBSCRIBE", &off)] {
                if !names.is_empty() {
                    resp::encode_many(command, names.iter().map(|name| &**name), output);
                }
            }
            for name in off.into_iter().chain(over) {
                self.forget_if_over(&name);
            }
        }
    }

    /// Redis has confirmed a subscription.
    pub(super) fn confirm(&mut self, name: &[u8]) -> Confirmed {
        let Some(channel) = self.channels.get_mut(name).filter(|channel| channel.unconfirmed > 0) else {
            return Confirmed::Unexpected;
        };
        channel.unconfirmed -= 1;
        self.unconfirmed -= 1;
        // If more are to come, it was unsubscribed in between.
        if channel.unconfirmed > 0 || !channel.is_wanted || !channel.is_on {
            self.forget_if_over(name);
            return Confirmed::Nothing;
        }
        if std::mem::take(&mut channel.is_renewed) {
            self.renewed -= 1;
        }
        Confirmed::Subscribed
    }

    fn forget_if_over(&mut self, name: &[u8]) {
        let is_over =
            |channel: &Channel| !channel.is_wanted && !channel.is_on && !channel.is_listed && channel.unconfirmed == 0;
        if self.channels.get(name).is_some_and(is_over) {
            self.channels.remove(name);
        }
    }

    /// Whether there is nothing to ask for.
    pub(super) fn has_asked_all(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether a confirmation is to come.
    pub(super) fn awaits_confirmation(&self) -> bool {
        self.unconfirmed > 0
    }

    /// Whether all channels that were wanted when the connection was made are subscribed again.
    pub(super) fn is_renewed(&self) -> bool {
        self.renewed == 0
    }
}

#[cfg(test)]
mod tests;
