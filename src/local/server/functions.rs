//! The functions of a running gateway.

use super::super::function::Function;
use super::super::rules::{FunctionId, Machine};
use super::Server;

impl Server {
    /// Sets where functions push that run as processes.
    pub(in super::super) fn set_endpoint(&self, endpoint: &str) {
        for function in &self.shared.lock().functions {
            function.set_endpoint(endpoint);
        }
    }

    pub(in super::super) fn replace(&self, route_key: &str, function: Function) -> Result<(), Function> {
        self.replace_where(|machine| machine.function(route_key), function)
    }

    pub(in super::super) fn replace_authorizer(&self, function: Function) -> Result<(), Function> {
        self.replace_where(Machine::authorizer, function)
    }

    fn replace_where(
        &self,
        find: impl FnOnce(&Machine) -> Option<FunctionId>,
        function: Function,
    ) -> Result<(), Function> {
        let mut state = self.shared.lock();
        let id = find(&state.machine);
        let Some(place) = id.and_then(|id| state.functions.get_mut(id)) else { return Err(function) };
        let replaced = std::mem::replace(place, function);
        drop(state);
        // Dropped without the lock: values that the function holds may push on drop.
        drop(replaced);
        Ok(())
    }
}
