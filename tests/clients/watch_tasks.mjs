// What a program on npm's xen-api does with tasks. Arguments: the module's file, the daemon's port, a source file, a
// target file. Prints one JSON object of what it saw; the test says what that has to be.

const [file, port, source, target] = process.argv.slice(2)
const { createClient } = await import(file)

const url = `http://root:any%20password@127.0.0.1:${port}`
const xapi = createClient({ url, watchEvents: ['pool', 'task'], debounce: 20 })
const refetched = []
const refresh = xapi._refreshCachedRecords
xapi._refreshCachedRecords = function (types) {
  refetched.push(types)
  return refresh.call(this, types)
}

async function settled(promise) {
  try {
    return { resolved: await promise }
  } catch (error) {
    return { rejected: error.code ?? error.constructor.name, params: error.params ?? error.message }
  }
}

async function native(method, params) {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`http://127.0.0.1:${port}/jsonrpc`, { method: 'POST', headers, body })
  return (await response.json()).result
}

const seen = {}
await xapi.connect()
await xapi._objectsFetched

const ended = {
  success: [['set_result', '<value>OpaqueRef:made</value>'], ['set_status', 'success']],
  'plain result': [['set_result', 'made & done'], ['set_status', 'success']],
  'no result': [['set_status', 'success']],
  failure: [['set_error_info', ['SR_FULL', '4096']], ['set_status', 'failure']],
  'failure without a reason': [['set_status', 'failure']],
  cancelled: [['set_status', 'cancelled']],
  'destroyed with its end': [['destroy'], ['set_result', '<value>kept</value>'], ['set_status', 'success']],
}
for (const [name, calls] of Object.entries(ended)) {
  const ref = await xapi.call('task.create', name, 'by npm')
  const watching = settled(xapi.watchTask(ref))
  for (const [method, ...values] of calls) {
    await xapi.call(`task.${method}`, ref, ...values)
  }
  seen[name] = await watching
}

// A cancel reaches the producer through its own cache of objects.
const asked = await xapi.call('task.create', 'asked', '')
await xapi.call('task.cancel', asked)
const task = await xapi.barrier(asked)
seen.asked = [task.status, Object.values(task.current_operations)]

// Work that taskd does itself.
const copy = await native('Task.start', { operation: 'copy', params: { source, target } })
seen.copy = await settled(xapi.watchTask(`OpaqueRef:${copy.id}`))
const slow = await native('Task.start', { operation: 'copy', params: { source, target: target + '2', rate_limit: 1000 } })
const slowRef = `OpaqueRef:${slow.id}`
await xapi.barrier(slowRef)
seen['slow allows'] = xapi.getObject(slowRef).allowed_operations
const watchingSlow = settled(xapi.watchTask(slowRef))
await xapi.call('task.cancel', slowRef)
seen.slow = await watchingSlow

// What is destroyed is gone from the cache, and the number of tasks was right all the time.
await xapi.call('task.destroy', slowRef)
await xapi.barrier()
seen['slow is gone'] = xapi.getObjectByRef(slowRef, null) === null
seen.tasks = Object.values(xapi.objects.all).filter(object => object.$type === 'task').length
seen['all records'] = Object.keys(await xapi.call('task.get_all_records')).length
seen.refetched = refetched

seen['unknown method'] = await settled(xapi.call('task.nothing', 'OpaqueRef:x'))

// A client that watches everything fetches all classes that there are.
const all = createClient({ url, debounce: 20 })
await all.connect()
await all._objectsFetched
seen.types = [...new Set(Object.values(all.objects.all).map(object => object.$type))].sort()

await all.disconnect()
await xapi.disconnect()
console.log(JSON.stringify(seen))
process.exit(0)
