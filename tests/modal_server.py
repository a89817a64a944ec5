"""As much of Modal's service as the real client needs of it, on the loopback: a Volume in a folder, and containers that
are this process. What it was told is kept, so that tests see what Modal would have seen."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpclib
from google.protobuf.empty_pb2 import Empty
from grpclib.server import Server, Stream
from modal_proto import api_grpc, api_pb2

Run = Callable[[str, Any], Any]
"""From a function's name and its argument to its result."""


class ModalServer:
    """The service; :meth:`start` it in a thread of its own."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.volume, self.run = folder, run
        self.volume.mkdir(parents=True, exist_ok=True)
        self.told: dict[str, list[Any]] = {}
        self.apps: dict[str, list[str]] = {}
        self.options: list[Any] = []
        self.refuses = False
        self.lost = 0
        """How many of the next inputs are lost with their machine."""
        self._blobs: dict[str, bytes] = {}
        self._functions: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    def start(self) -> str:
        """Serve, and return the address."""
        threading.Thread(target=self._serve, daemon=True).start()
        assert self._ready.wait(30)
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Serve no more."""
        self._loop.call_soon_threadsafe(self._server.close)

    def _serve(self) -> None:
        async def serve() -> None:
            self._server = Server([self._service()])
            await self._server.start("127.0.0.1", 0)
            self.port = self._server._server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._server.wait_closed()

        self._loop.run_until_complete(serve())

    def _service(self) -> Any:
        def method(name: str) -> Callable[..., Any]:
            async def serve(_: Any, stream: Stream[Any, Any]) -> None:
                request = await stream.recv_message()
                self.told.setdefault(name, []).append(request)
                answer = getattr(self, name, None)
                if self.refuses:
                    raise grpclib.GRPCError(grpclib.Status.UNAUTHENTICATED, "ak-secret-id is not valid")
                if answer is None:
                    raise grpclib.GRPCError(grpclib.Status.UNIMPLEMENTED, f"this server has no {name}")
                await stream.send_message(await asyncio.to_thread(answer, request))

            return serve

        methods = {name: method(name) for name in api_grpc.ModalClientBase.__abstractmethods__}
        return type("Service", (api_grpc.ModalClientBase,), methods)()

    # The app

    def AppGetByDeploymentName(self, request: Any) -> Any:
        return api_pb2.AppGetByDeploymentNameResponse()

    def AppCreate(self, request: Any) -> Any:
        return api_pb2.AppCreateResponse(app_id="ap-1")

    def AppPublish(self, request: Any) -> Any:
        self.apps[request.name] = list(request.function_ids)
        return api_pb2.AppPublishResponse(url="http://127.0.0.1/app", deployed_at=1.0)

    def AppHeartbeat(self, request: Any) -> Any:
        return Empty()

    def AppClientDisconnect(self, request: Any) -> Any:
        return Empty()

    def EnvironmentGetOrCreate(self, request: Any) -> Any:
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id="en-1", metadata=api_pb2.EnvironmentMetadata(name="main", settings=settings)
        )

    def ImageGetOrCreate(self, request: Any) -> Any:
        done = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        number = len(self.told["ImageGetOrCreate"])
        return api_pb2.ImageGetOrCreateResponse(image_id=f"im-{number}", result=done)

    def MountGetOrCreate(self, request: Any) -> Any:
        return api_pb2.MountGetOrCreateResponse(mount_id=f"mo-{len(self.told['MountGetOrCreate'])}")

    def MountBatchedCheckExistence(self, request: Any) -> Any:
        return api_pb2.MountBatchedCheckExistenceResponse()

    def FunctionPrecreate(self, request: Any) -> Any:
        return api_pb2.FunctionPrecreateResponse(
            function_id=f"fu-{request.function_name}", handle_metadata=self._handle(request.function_name)
        )

    def FunctionCreate(self, request: Any) -> Any:
        name = request.function.function_name
        self._functions[name] = self._data(request.function)
        return api_pb2.FunctionCreateResponse(
            function_id=f"fu-{name}", handle_metadata=self._handle(name), function_data=self._functions[name]
        )

    def FunctionGet(self, request: Any) -> Any:
        if request.object_tag not in self.apps.get(request.app_name, []):
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, f"no app {request.app_name}")
        name = request.object_tag
        return api_pb2.FunctionGetResponse(
            function_id=f"fu-{name}", handle_metadata=self._handle(name), function=self._functions[name]
        )

    def FunctionBindParams(self, request: Any) -> Any:
        self.options.append(request.function_options)
        name = request.function_id.removeprefix("fu-")
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=request.function_id, handle_metadata=self._handle(name)
        )

    @staticmethod
    def _data(function: Any) -> Any:
        return api_pb2.FunctionData(
            function_name=function.function_name,
            ranked_functions=[api_pb2.FunctionData.RankedFunction(rank=0, function=function)],
        )

    @staticmethod
    def _handle(name: str) -> Any:
        return api_pb2.FunctionHandleMetadata(
            function_name=name,
            function_type=api_pb2.Function.FUNCTION_TYPE_FUNCTION,
            supported_input_formats=[api_pb2.DATA_FORMAT_PICKLE],
            supported_output_formats=[api_pb2.DATA_FORMAT_PICKLE],
        )

    # Calls

    def FunctionMap(self, request: Any) -> Any:
        call = f"fc-{len(self.told['FunctionMap'])}"
        self._outputs[call] = request.function_id.removeprefix("fu-"), self.argument(request)
        first = api_pb2.FunctionPutInputsResponseItem(idx=0, input_id=f"in-{call}", input_jwt="jwt")
        function = self._functions[self._outputs[call][0]].ranked_functions[0].function
        return api_pb2.FunctionMapResponse(
            function_call_id=call,
            pipelined_inputs=[first],
            function_call_jwt="jwt",
            retry_policy=function.retry_policy,
            sync_client_retries_enabled=True,
        )

    @staticmethod
    def argument(request: Any) -> Any:
        """What a function was called with."""
        (argument,), _ = pickle.loads(request.pipelined_inputs[0].input.args)
        return argument

    def FunctionRetryInputs(self, request: Any) -> Any:
        return api_pb2.FunctionRetryInputsResponse(input_jwts=["jwt"])

    def FunctionGetOutputs(self, request: Any) -> Any:
        result = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_INTERNAL_FAILURE)
        if self.lost:
            self.lost -= 1
        else:
            try:
                data = pickle.dumps(self.run(*self._outputs[request.function_call_id]))
                result = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS, data=data)
            except Exception as error:
                late = isinstance(error, TimeoutError)
                status = api_pb2.GenericResult.GENERIC_STATUS_TERMINATED
                status = api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT if late else status
                result = api_pb2.GenericResult(status=status, exception=repr(error), data=pickle.dumps(error))
        item = api_pb2.FunctionGetOutputsItem(
            result=result, idx=0, input_id="in", data_format=api_pb2.DATA_FORMAT_PICKLE
        )
        return api_pb2.FunctionGetOutputsResponse(idxs=[0], outputs=[item], last_entry_id="1-0")

    # The Volume

    def VolumeGetOrCreate(self, request: Any) -> Any:
        metadata = api_pb2.VolumeMetadata(version=api_pb2.VOLUME_FS_VERSION_V1, name=request.deployment_name)
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id="vo-1", version=api_pb2.VOLUME_FS_VERSION_V1, metadata=metadata
        )

    def VolumeListFiles(self, request: Any) -> Any:
        folder = self.volume / request.path.lstrip("/")
        if not folder.is_dir():
            raise grpclib.GRPCError(grpclib.Status.NOT_FOUND, f"no {request.path}")
        entries = [
            api_pb2.FileEntry(path=str(file.relative_to(self.volume)), type=api_pb2.FileEntry.FILE, size=1)
            for file in folder.iterdir()
        ]
        return api_pb2.VolumeListFilesResponse(entries=entries)

    def MountPutFile(self, request: Any) -> Any:
        if request.data:
            assert hashlib.sha256(request.data).hexdigest() == request.sha256_hex
            self._blobs[request.sha256_hex] = request.data
        return api_pb2.MountPutFileResponse(exists=request.sha256_hex in self._blobs)

    def VolumePutFiles(self, request: Any) -> Any:
        for file in request.files:
            path = self.volume / file.filename.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._blobs[file.sha256_hex])
        return Empty()
