"""A relay that makes a server far away: bench_relay.py PORT SERVER_PORT ROUND_TRIP_SECONDS

Whatever comes is passed on half a round trip later, in both directions; a new connection waits for one round trip more, as the
handshake of TCP does. It needs neither root nor a kernel with netem.
"""
import asyncio, sys

PORT, SERVER, TRIP = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


async def carry(reader, writer, begin):
    loop, queue = asyncio.get_running_loop(), asyncio.Queue(256)

    async def deliver():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(1 << 18):
            await queue.put((max(loop.time(), begin) + TRIP / 2, data))
    except ConnectionError:
        pass
    await queue.put((loop.time() + TRIP / 2, b""))
    try:
        await delivery
    except (ConnectionError, OSError):
        pass


async def serve(client_reader, client_writer):
    begin = asyncio.get_running_loop().time() + TRIP
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", SERVER)
    await asyncio.gather(carry(client_reader, server_writer, begin), carry(server_reader, client_writer, 0))
    client_writer.close()
    server_writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", PORT, limit=1 << 20)
    async with server:
        await server.serve_forever()


asyncio.run(main())
