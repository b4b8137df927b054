//! Validates the configuration and starts the gateway.

use std::collections::BTreeMap;

use super::super::identity::IdentitySource;
use super::super::rules::{Api, Authorizer, Integration};
use super::super::server::{Config, Hosts, Server};
use super::super::{Gateway, StartError, Timeline};
use super::GatewayBuilder;
use crate::event::{ApiId, Region, RouteKey, Stage};

impl GatewayBuilder {
    /// Starts the gateway.
    ///
    /// # Errors
    ///
    /// - [`StartError::Listen`] if the gateway cannot listen on the address.
    /// - [`StartError::Name`] if a stage or a route key is invalid.
    /// - [`StartError::ReservedStage`] if a stage is named `ping` or `sping`.
    /// - [`StartError::TwoFunctions`] if a route has two functions.
    /// - [`StartError::NoFunction`] if a route response or a timeout is set for a route without a
    ///   function.
    /// - [`StartError::IdentitySource`] if an identity source is invalid.
    /// - [`StartError::RouteSelection`] if the route selection expression is invalid.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with I/O and time enabled.
    pub async fn start(mut self) -> Result<Gateway, StartError> {
        if self.listeners.is_empty() {
            self = self.bind("127.0.0.1:0")?;
        }
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        let stage = Stage::new(&self.stage)?;
        let api = self.api(&stage)?;
        if api.selection.is_static() {
            tracing::warn!(
                expression = %api.selection,
                "the route selection expression has no variable, such as $request.body.action: every message selects the same"
            );
        }
        let config = Config {
            api,
            functions: self.functions,
            keys: self.keys,
            hosts: Hosts::new(self.hosts),
            compresses: self.compresses,
            is_verbose: self.is_verbose,
            seed: self.seed.unwrap_or_else(rand::random),
            timeline: Timeline::new(self.observers),
        };
        let server = Server::start(self.listeners, config)
            .map_err(|source| StartError::Listen { address: self.stage.clone(), source })?;
        let gateway = Gateway { server, stage };
        let endpoint = gateway.endpoint();
        gateway.server.set_endpoint(endpoint.as_str());
        // The pushers created so far can reach the gateway now.
        let _ = self.linked.set(gateway.server.link(endpoint));
        Ok(gateway)
    }

    fn api(&self, stage: &Stage) -> Result<Api, StartError> {
        let mut named = self.route_responses.iter().chain(self.route_timeouts.keys());
        if let Some(key) = named.find(|key| !self.routes.contains_key(*key)) {
            return Err(StartError::NoFunction { key: key.clone() });
        }
        let mut routes = BTreeMap::new();
        for (key, function) in &self.routes {
            let integration = Integration {
                function: *function,
                has_route_response: self.route_responses.contains(key),
                timeout: self.route_timeouts.get(key).copied().unwrap_or(self.integration_timeout),
            };
            routes.insert(RouteKey::new(key)?, integration);
        }
        let authorizer = match &self.authorizer {
            None => None,
            Some((function, sources)) => {
                let identity_sources: Result<Vec<IdentitySource>, _> =
                    sources.iter().map(|source| source.parse()).collect();
                Some(Authorizer { function: *function, identity_sources: identity_sources? })
            }
        };
        let mut stages = BTreeMap::from([(stage.clone(), self.stage_variables.clone())]);
        for (name, variables) in &self.more_stages {
            stages.insert(Stage::new(name)?, variables.clone());
        }
        // LIM-6
        if let Some(stage) = stages.keys().find(|stage| matches!(stage.as_str(), "ping" | "sping")) {
            return Err(StartError::ReservedStage { stage: stage.to_string() });
        }
        Ok(Api {
            api_id: ApiId::new("local")?,
            region: Region::new("us-east-1")?,
            stages,
            selection: self.selection.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
            routes,
            authorizer,
            idle_timeout: self.idle_timeout,
            lifetime: self.lifetime,
            connections: self.connections,
            requests: self.requests,
            concurrency: self.concurrency,
            is_interleaved: self.is_interleaved,
            function_concurrency: self
                .functions
                .iter()
                .enumerate()
                .filter_map(|(id, function)| Some((id, function.concurrency()?)))
                .collect(),
        })
    }
}
