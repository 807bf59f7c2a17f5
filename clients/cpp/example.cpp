// Asks one question and prints the answer as it arrives: example HOST:PORT QUESTION [MAX_TOKENS]
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "elasticmm/v1/inference.grpc.pb.h"

namespace em = elasticmm::v1;

namespace {

constexpr int kUsage = 2;
constexpr int kKeepAliveMs = 30'000;  // the server takes a ping each 10 s

std::unique_ptr<em::Inference::Stub> connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepAliveMs);
  return em::Inference::NewStub(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

em::GenerateRequest ask(const std::string& question, int max_tokens) {
  em::GenerateRequest request;
  em::Message* message = request.add_messages();
  message->set_role("user");
  message->add_parts()->set_text(question);
  request.mutable_sampling()->set_max_tokens(max_tokens);
  return request;
}

void show(const em::GenerateEvent& event) {
  if (event.has_tokens()) {
    std::cout << event.tokens().text() << std::flush;
  } else if (event.has_finished()) {
    std::cout << '\n' << event.finished().usage().completion_tokens() << " tokens\n";
  }
}

}  // namespace

int main(int count, char** words) {
  const int max_tokens = count > 3 ? std::atoi(words[3]) : 64;
  if (count < 3 || max_tokens < 1) {
    std::cerr << "usage: example HOST:PORT QUESTION [MAX_TOKENS]\n";
    return kUsage;
  }
  const auto inference = connect(words[1]);
  grpc::ClientContext context;  // context.TryCancel() stops the work, from any thread
  const auto events = inference->Generate(&context, ask(words[2], max_tokens));
  for (em::GenerateEvent event; events->Read(&event);) show(event);
  const grpc::Status status = events->Finish();
  if (!status.ok()) {
    std::cerr << "status " << status.error_code() << ": " << status.error_message() << '\n';
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
