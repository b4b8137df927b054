//! What the rules are told of a set-up.

use std::collections::BTreeMap;

use super::super::StartError;
use super::super::identity::IdentitySource;
use super::super::rules::{Api, Authorizer, Integration};
use super::Builder;
use crate::event::{ApiId, Region, RouteKey, Stage};

impl Builder {
    pub(super) fn api(&self, stage: &Stage) -> Result<Api, StartError> {
        if let Some(key) = self.two_way.iter().find(|key| !self.routes.contains_key(*key)) {
            return Err(StartError::NoFunction { key: key.clone() });
        }
        let mut routes = BTreeMap::new();
        for (key, function) in &self.routes {
            let integration = Integration {
                function: *function,
                two_way: self.two_way.contains(key),
                timeout: self.integration_timeout,
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
