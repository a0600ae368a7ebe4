//! `service add|rm|list|show`.

use super::{
    args,
    conversation::{Conversation, DONE, Outcome},
    render, status,
};
use crate::api::{
    NetworkRequest, ServiceAddReply, ServiceAddRequest, ServiceListReply, ServiceRemoveReply,
    ServiceRequest, ServiceShowReply, Verb,
};

impl Conversation<'_> {
    pub(super) async fn service(&self, service: &args::Service) -> Outcome {
        let network = self.network();
        let width = self.screen.width();
        match service {
            args::Service::Add(add) => self.service_add(add).await,
            args::Service::Rm { name } => {
                let request = ServiceRequest {
                    network,
                    name: name.clone(),
                };
                self.simple::<ServiceRemoveReply>(
                    Verb::ServiceRemove,
                    &request,
                    render::service_removed,
                )
                .await
            }
            args::Service::List => {
                let text = |reply: &ServiceListReply| match &reply.services[..] {
                    [] => "no services yet: sudo webmesh service add NAME --port P\n".to_owned(),
                    services => status::services(services, width),
                };
                self.simple(Verb::ServiceList, &NetworkRequest { network }, text)
                    .await
            }
            args::Service::Show { name } => {
                let request = ServiceRequest {
                    network,
                    name: name.clone(),
                };
                let text = |reply: &ServiceShowReply| status::service(&reply.service, width);
                self.simple(Verb::ServiceShow, &request, text).await
            }
        }
    }

    async fn service_add(&self, add: &args::ServiceAdd) -> Outcome {
        let request = ServiceAddRequest {
            network: self.network(),
            name: add.name.clone(),
            port: add.port.port,
            protocol: add.port.protocol,
            target: add.target.clone(),
            tags: add.tags.clone(),
            weight: add.weight,
            instance: add.instance.clone(),
        };
        let reply = self.agent.ask(Verb::ServiceAdd, &request).await?;
        self.print::<ServiceAddReply>(&reply, render::service_added)?;
        for warning in render::service_warnings(&reply.parse()?) {
            self.screen.talk(&format!("webmesh: {}\n", warning.line()));
        }
        Ok(DONE)
    }
}
